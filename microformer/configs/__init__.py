"""Ready settings in config.py's form, found by their file's name: `microformer train --config quick`."""
