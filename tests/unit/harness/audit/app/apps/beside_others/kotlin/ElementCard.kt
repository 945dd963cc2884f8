package com.acme.lens

val ELEMENTS = listOf("wood", "fire", "land", "metal", "water")

fun elementColors(name: String): Color = when {
    name.contains("fire") -> Color.Red
    name.contains("water") -> Color.Blue
    else -> Color.Gray
}
