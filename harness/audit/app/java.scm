(method_invocation name: (_) @name arguments: (_) @args) @call
(object_creation_expression type: (_) @name arguments: (_) @args) @call
(assignment_expression left: (_) @name operator: "=" right: (_) @value) @set
(field_declaration
  declarator: (variable_declarator name: (_) @name value: (_) @value) @declare) @whole
(local_variable_declaration
  declarator: (variable_declarator name: (_) @name value: (_) @value) @declare) @whole
(string_literal) @text
[(method_declaration name: (_) @name parameters: (_) @parameters)
 (constructor_declaration name: (_) @name parameters: (_) @parameters)] @function
[(class_declaration name: (_) @name) (interface_declaration name: (_) @name)
 (enum_declaration name: (_) @name)] @class
(method_invocation
  object: (_) @name name: (identifier) @how arguments: (argument_list . (_) @value .)
  (#any-of? @how "put" "add" "write")) @write
(binary_expression) @compare
[(ERROR) (MISSING)] @error

(parenthesized_expression (_) @inner)
(cast_expression value: (_) @inner)
