"""
Towards the Hub: which upstream is asked, what of its answers is believed, where they lead.
"""
