"""What a GPU can show in a few minutes: `ddpm-bench gpu`.

stages.py   what is done, in order of value: each stage is a few commands of the command line
session.py  the stages within the minutes: each as processes of their own, stopped in time, and finished ones not done again
goals.py    what was hoped for, and what was measured of it; summary.py the page about all of it
archive.py  what comes back, as one file
"""
