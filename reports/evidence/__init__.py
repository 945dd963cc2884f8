"""What lies one click below a verdict: pictures, tokens, margins, layers, distances, conditions."""
