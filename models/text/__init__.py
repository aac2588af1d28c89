"""Masked and block-diffusion language models: families, attention masks, loading, export, the value network.

Image models and what both share do not belong here. Imports the files of `models`.
"""
