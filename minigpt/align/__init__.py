"""From a model that continues text to one that answers: demonstrations, comparisons, reinforcement learning, tools."""
