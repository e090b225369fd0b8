"""Descriptions to class embeddings: `encoders` reads sentences, `descriptions` makes one vector of those of a class."""
