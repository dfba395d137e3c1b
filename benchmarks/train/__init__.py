"""The trainer measured: `make bench-train` fills the table of docs/train.md, `make bench-train-cost` weighs the tuner.

`plans` lists the rows, `queue` takes them one by one, `measure` runs each as processes of its own (`posthoc` where a
full fine-tune is cut down), `rows` keeps them; `plot` and `claims` show what they say. `news` makes one of the tasks.
"""
