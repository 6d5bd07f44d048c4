"""How the lab's models were trained; not shipped."""
