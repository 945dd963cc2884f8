"""An app's log: what llama.cpp said there about the model, the context and the image.

llama.cpp says what it really does, whatever the source asks for: this is the stronger evidence.
"""

from harness.audit.log.heard import Fact, Heard, hear
from harness.audit.log.logcat import of_file, of_phone

__all__ = ["Fact", "Heard", "hear", "of_file", "of_phone"]
