"""What is to be said of an edit for systems in which it means less than it seems."""

from __future__ import annotations

from sri_cli.generation.trained_run import TrainedRun
from sri_cli.generation.walk_scenes import has_scene


def notes(trained: TrainedRun, action: str, pictured: bool) -> list[str]:
    """Lines on what this system's slots do and do not, for the action."""
    section = trained.recipe.model
    name = trained.recipe.name
    said = []
    if section.system == "genesis":
        said.append(
            f"{name}: a slot is its mask latent and its component latent, edited together; each"
            " mask is a share of what the slots before it leave, and the last takes the rest, so"
            " that an edit moves the slots after it too"
        )
    ordered = section.system == "sri" and section.alignment
    if action in ("repeat", "exchange") and not ordered and section.system != "genesis":
        said.append(
            f"{name} learns no order: the same slot of two scenes may be ground in one and an"
            " object in the other"
        )
    if action == "repeat" and section.system != "genesis":
        said.append(
            "a slot is a thing in its place: twice it lies upon itself, and its mask only wins a"
            " little at the edges"
        )
    if action == "reimagine" and section.system == "emorl":
        said.append(f"{name} draws every slot on its own: new slots do not follow those kept")
    elif action == "reimagine" and not has_scene(trained.model):
        said.append(f"{name} has no scene variable: new slots follow from those kept alone")
    elif action == "reimagine":
        whose = "inferred from the image" if pictured else "as drawn"
        said.append(f"the scene latent ({whose}) and the slots before are kept")
    return said
