"""Linear classifiers that scikit-learn trained, as the same graph."""
