"""Builds and pushes an image of hello.py: app.py MODULE REGISTRY BASE.

MODULE has the builder: Fairing's own, or fairing_append.
"""
import importlib
import sys

from kubeflow.fairing.preprocessors.base import BasePreProcessor

module, registry, base = sys.argv[1:]
builder = importlib.import_module(module).AppendBuilder(
    registry=registry, base_image=base, preprocessor=BasePreProcessor(executable="hello.py"))
builder.build()
print(builder.image_tag)
