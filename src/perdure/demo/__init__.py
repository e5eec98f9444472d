"""The research behind `perdure demo`, and the program that kills it and proves that nothing ran twice."""
