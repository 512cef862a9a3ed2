"""The runner: asks the Scheduler what follows, has it committed, sends the commands on. It decides nothing."""
