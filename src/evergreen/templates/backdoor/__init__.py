"""Intents for a phone app, trained on a borrowed machine through nothing but a shared folder."""

from evergreen.templates.backdoor.door import BackdoorDoor, DoorOptions

__all__ = ["BackdoorDoor", "DoorOptions"]
