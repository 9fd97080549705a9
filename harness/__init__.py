"""peft-regress: does an adapter that a released PEFT saved still load today, and compute the same thing?"""

__version__ = "0.1.0"
