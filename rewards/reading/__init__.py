"""Rewards of the text in a picture: what the prompt asks for in quotes, against what an engine reads.

Two engines: `rapid`, the one to reward, and `tesseract`, the one that only measures. What both share, which text a
prompt asks for and how far a reading is from it, is `quoted`. Not here: any other reward of pictures
(`rewards.images`).
"""
