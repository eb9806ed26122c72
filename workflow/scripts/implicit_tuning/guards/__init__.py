"""Guards: what keeps a run that was finetuned on one task to that task. One file a guard."""
