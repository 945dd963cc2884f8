(call_expression . (_) @name (value_arguments) @args) @call
(assignment left: (_) @name operator: "=" right: (_) @value) @set
(value_argument . (identifier) @name "=" . (_) @value) @set
(property_declaration (variable_declaration (identifier) @name) "=" . (_) @value) @declare
(property_declaration (variable_declaration (identifier) @name) (property_delegate) @value) @declare
(class_parameter (identifier) @name "=" . (_) @value) @declare
[(string_literal) (multiline_string_literal)] @text
(function_declaration name: (_) @name (function_value_parameters) @parameters) @function
[(class_declaration name: (_) @name) (object_declaration name: (_) @name)] @class
(companion_object name: (_) @name) @class
(call_expression
  (navigation_expression (_) @name (identifier) @how)
  (value_arguments . (value_argument . (_) @value .) .)
  (#any-of? @how "put" "add" "write")) @write
(binary_expression) @compare
[(ERROR) (MISSING)] @error

(parenthesized_expression (_) @inner)
(as_expression . (_) @inner)
(call_expression
  (navigation_expression . (_) @inner (identifier) @how .)
  (#any-of? @how "toInt" "toFloat" "toLong" "toDouble" "toUInt" "toString" "trimIndent"))
