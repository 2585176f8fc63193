"""One file per option: it does what its help says, and a wrong value is one sentence."""
