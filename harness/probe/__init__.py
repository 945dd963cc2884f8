"""The app asked by driftloop: a test class that runs the app's own code on a phone, and its lines.

The class (Kotlin or Java) goes into the app's `androidTest`. It reads the images that driftloop
pushes and writes one line an image, as docs/app-observations.md has them.
"""

from harness.probe.app_run import RUNNER, App, ask
from harness.probe.source import Language, write

__all__ = ["RUNNER", "App", "Language", "ask", "write"]
