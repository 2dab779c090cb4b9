"""Where the rooms meet: one plain function and one config a job. Importing a recipe's config does not import torch."""
