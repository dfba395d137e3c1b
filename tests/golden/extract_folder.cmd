diffpack extract --base model --tuned task --sha256
diffpack inspect task.dpk
