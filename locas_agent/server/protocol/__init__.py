"""The forms of OpenAI's interface: requests to messages and options, answers to JSON. Nothing here calls a model."""
