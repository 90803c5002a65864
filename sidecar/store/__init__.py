"""Keeps answers, in this process's memory and in the tiers behind it; what fails behind is as good as not there."""
