"""What is said about a recipe before it runs: faults, a commented starter, its JSON schema."""
