"""Names and types inside C's declarators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.app_source.language.syntax import named, text, type_name

if TYPE_CHECKING:
    from tree_sitter import Node as Syntax


def specifiers(node: Syntax) -> list[str]:
    kinds = ("storage_class_specifier", "type_qualifier")
    return [text(item) for item in node.children if item.type in kinds]


def full_type(node: Syntax) -> str:
    """The type as written, with a `*` where the declarator says pointer."""
    declarator = node.child_by_field_name("declarator")
    pointer = "*" if declarator is not None and "pointer" in declarator.type else ""
    inner = declarator.child_by_field_name("declarator") if declarator is not None else None
    if not pointer and declarator is not None and declarator.type == "init_declarator":
        pointer = "*" if inner is not None and "pointer" in inner.type else ""
    return text(node.child_by_field_name("type")) + pointer


def declared_name(node: Syntax | None) -> str:
    """The name inside a declarator."""
    while node is not None:
        if node.type in ("identifier", "field_identifier", "type_identifier"):
            return text(node)
        if node.type == "qualified_identifier":
            return qualified(node)[0]
        inner = node.child_by_field_name("declarator")
        if inner is None:
            candidates = [
                i for i in named(node) if "identifier" in i.type or "declarator" in i.type
            ]
            inner = candidates[0] if candidates else None
        node = inner
    return ""


def function_declarator(node: Syntax | None) -> Syntax | None:
    """The function declarator in a declarator; none where a value is given."""
    while node is not None:
        if node.type == "function_declarator":
            inner = node.child_by_field_name("declarator")
            return None if inner is not None and "parenthesized" in inner.type else node
        if node.type not in ("pointer_declarator", "reference_declarator"):
            return None
        inside = named(node)
        node = node.child_by_field_name("declarator") or (inside[-1] if inside else None)
    return None


def qualified(node: Syntax | None) -> tuple[str, str]:
    """(name, scope) of `a::b::name`; the scope is its last word."""
    scope = ""
    while node is not None and node.type == "qualified_identifier":
        scope = text(node.child_by_field_name("scope")) or scope
        node = node.child_by_field_name("name")
    if node is not None and node.type in ("template_function", "destructor_name"):
        node = node.child_by_field_name("name") or node
    return text(node), type_name(scope)
