"""Libraries that load and run models: what they raise, as one message, and what they print."""
