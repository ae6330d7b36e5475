"""What is wrong with a data set, how much that harms, and what would repair it."""
