"""What a program asks of the machine: its environment, its other processes, its disk, and how it ends."""
