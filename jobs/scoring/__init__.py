"""The columns that scores and vectors add to a recipe's rules, and scores of one's own as tables."""
