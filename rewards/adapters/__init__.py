"""Tandem's rewards in other trainers: `rewards.adapters.trl`, `rewards.adapters.verl`. Neither imports the trainer."""
