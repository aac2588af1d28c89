"""GenEval (arXiv 2310.11513): does a picture have the objects, counts, colours and places that its prompt asks for?

`rules` decides from what was found, `detector` finds objects, `colours` names their colours, `reward` joins them. It
takes the dual encoder from `rewards.images`, and no other room.
"""
