"""What is found out about models and heads beside their training."""
