"""How fast: our network and loops beside other packages', what this machine can do, and where the time goes.

result.py   what was measured, typed, as JSON
case.py     what is measured: a preset's network, batch, device and precision
peers.py    the contenders: one class each
work.py     a training step, a sampling step, a term of the bound, of any contender
machine.py  the machine's own peak, and memory
entrant.py  a contender warmed up: in this process, or on a GPU in one of its own
measure.py  interleaved rounds, and ratios with their intervals
processes.py several processes on one device
shares.py   time inside and outside the network, in the code that measures cells
report.py   table and Markdown of a result; plot.py its figure
run.py      all of it
gpu/        what a GPU can show in a few minutes, in stages, as one archive
"""
