diffpack extract --base short --tuned task
