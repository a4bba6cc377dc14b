"""All members of each room, so that one property test covers every one of them; a file each, as the rooms have.

A member is (name, constructor without arguments, example input shape without the batch, ..): each list says what.
A new part is tested the moment it has a line here.
"""
