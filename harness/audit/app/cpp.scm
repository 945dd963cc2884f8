(call_expression function: (_) @name arguments: (argument_list) @args) @call
; `T x(f(), g);`, which C++ takes for a function's declaration
(parameter_declaration type: (_) @name declarator: (abstract_function_declarator)) @call
; `T x{a, b};` makes a T as a call does
(declaration
  type: (_) @name declarator: (init_declarator value: (initializer_list) @args) @call) @whole
(assignment_expression left: (_) @name operator: "=" right: (_) @value) @set
(initializer_pair designator: (_) @name value: (_) @value) @set
(declaration
  declarator: (init_declarator declarator: (_) @name value: (_) @value) @declare) @whole
(field_declaration declarator: (_) @name default_value: (_) @value) @declare
(preproc_def name: (_) @name value: (_) @value) @declare
(enumerator name: (_) @name value: (_) @value) @declare
[(string_literal) (raw_string_literal) (concatenated_string)] @text
(function_definition declarator: [
  (function_declarator declarator: (_) @name parameters: (_) @parameters)
  (_ (function_declarator declarator: (_) @name parameters: (_) @parameters))]) @function
(call_expression
  function: (field_expression argument: (_) @name field: (field_identifier) @how)
  arguments: (argument_list . (_) @value .)
  (#eq? @how "push_back")) @write
(binary_expression) @compare
[(ERROR) (MISSING)] @error

(parenthesized_expression (_) @inner)
(cast_expression value: (_) @inner)
(call_expression
  function: (_) @cast arguments: (argument_list . (_) @inner .)
  (#match? @cast "^(static_cast<[^<>]+>|std::string|string|jint|int|float|u?int32_t|size_t)$"))
(call_expression
  function: (field_expression argument: (_) @inner field: (_) @how)
  (#any-of? @how "c_str" "data"))
