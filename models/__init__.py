"""Models: one learner per question about customers.

Every learner has the same four verbs (fit, score, save, load), takes frames and returns numbers, and does not depend on
the database, the feature store or the registry. Importing one model does not load the libraries of another.
"""
