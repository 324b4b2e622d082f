"""The baselines that the papers compare with, each a method like any other."""
