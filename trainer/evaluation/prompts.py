"""Templates and class names, in our own wording, for sets of the paper's table that bring none of their own.

A set's own files come first, and results say which were used: another wording is another measurement, by up to some
points. ImageNet's thousand names and those of other sets with many classes are the set's to bring.
"""

from __future__ import annotations

from collections.abc import Mapping

SCENES = ("a photo of a {}.", "a picture of the {}.", "a view of a {}.", "an image showing a {}.")
OBJECTS = (
    "a photo of a {}.",
    "a picture of the {}.",
    "a close view of a {}.",
    "a {} seen from afar.",
    "a dark photo of a {}.",
    "a bright photo of the {}.",
    "a blurred picture of a {}.",
    "a cropped picture of the {}.",
    "a black and white photo of a {}.",
    "a photo of several {}.",
    "a small {} in a picture.",
    "a picture of a large {}.",
)
_RENDITIONS = (
    *OBJECTS,
    "a drawing of a {}.",
    "a painting of the {}.",
    "a sculpture of a {}.",
    "a toy {}.",
    "a cartoon of the {}.",
    "a {} made of origami.",
    "a tattoo of a {}.",
    "an embroidered {}.",
)
VIDEOS = (
    "a video of a person {}.",
    "a video of {}.",
    "a frame of a video about {}.",
    "people {} in a video.",
    "an example of {}.",
    "a person doing {}.",
    "a clip that shows {}.",
)
POINT_CLOUDS = (
    "a depth map of a {}.",
    "a rendered point cloud of a {}.",
    "a grey 3D model of a {}.",
    "a point cloud of the {}.",
    "a shaded view of a {}.",
    "a {} on a plain background.",
)

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "IN-1K": OBJECTS,
    "IN-V2": OBJECTS,
    "IN-A": OBJECTS,
    "ObjectNet": OBJECTS,
    "IN-R": _RENDITIONS,
    "IN-Sketch": (*OBJECTS, "a sketch of a {}.", "a pencil drawing of the {}.", "a line drawing of a {}."),
    "CIFAR-10": (*OBJECTS, "a photo of a {} in few pixels."),
    "CIFAR-100": (*OBJECTS, "a photo of a {} in few pixels."),
    "MNIST": ('a handwritten digit "{}".', 'the number "{}" in white on black.', 'a scan of the digit "{}".'),
    "Caltech101": (*OBJECTS, "a drawing of a {}.", "a plastic {}."),
    "SUN397": SCENES,
    "Aircraft": ("a photo of a {}, an aircraft.", "a photo of the {}, a type of airplane.", "an airplane, {}."),
    "Country211": ("a photo taken in {}.", "a picture of a place in {}.", "travelling through {}.", "life in {}."),
    "Cars": ("a photo of a {}.", "a photo of the {}, a car.", "a parked {}.", "a used {} for sale."),
    "Birdsnap": ("a photo of a {}, a bird.", "a picture of the {}, a species of bird.", "a {} in nature."),
    "DTD": ("a photo of a {} texture.", "a photo of something {}.", "a {} pattern.", "a {} surface, seen closely."),
    "EuroSAT": ("a satellite photo of {}.", "{} seen by a satellite.", "an aerial picture of {}."),
    "FER2013": ("a photo of a {} face.", "a person who looks {}.", "a {} expression on a face."),
    "Flowers": ("a photo of a {}, a flower.", "a picture of the {}, a kind of flower.", "a blooming {}."),
    "Food101": ("a photo of {}, a dish.", "a plate of {}.", "a picture of {}, a kind of food."),
    "GTSRB": ('a photo of a "{}" traffic sign.', 'a close view of a "{}" road sign.', 'a "{}" sign beside a road.'),
    "PCam": ("a histopathology slide of {}.", "stained tissue: {}.", "a microscope picture of {}."),
    "Pets": ("a photo of a {}, a pet.", "a picture of the {}, a breed of cat or dog.", "a {} at home."),
    "SST2": ("a {} review of a film.", "a written opinion that is {}.", "a text whose tone is {}."),
    "RESISC45": ("a satellite photo of a {}.", "an aerial photo of the {}.", "a {} seen from above."),
    "STL10": OBJECTS,
    "VOC2007": (*SCENES, "a photo with a {} in it."),
}
"""Set of the table → templates with {} for the class."""

NAMES: Mapping[str, Mapping[str, str]] = {
    "MNIST": {digit: digit for digit in "0123456789"},
    "CIFAR-10": {
        name: name
        for name in ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    },
    "EuroSAT": {
        "AnnualCrop": "a field of annual crops",
        "Forest": "a forest",
        "HerbaceousVegetation": "meadows and bushes",
        "Highway": "a highway",
        "Industrial": "industrial buildings",
        "Pasture": "a pasture",
        "PermanentCrop": "a plantation",
        "Residential": "houses of a town",
        "River": "a river",
        "SeaLake": "a lake or the sea",
    },
    "FER2013": {
        "angry": "angry",
        "disgust": "disgusted",
        "fear": "frightened",
        "happy": "happy",
        "sad": "sad",
        "surprise": "surprised",
        "neutral": "neutral",
    },
    "PCam": {"0": "healthy tissue of a lymph node", "1": "a lymph node with a tumour"},
    "SST2": {"negative": "negative", "positive": "positive"},
    "STL10": {
        name: name for name in ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    },
    "VOC2007": {
        "aeroplane": "airplane",
        "bicycle": "bicycle",
        "bird": "bird",
        "boat": "boat",
        "bottle": "bottle",
        "bus": "bus",
        "car": "car",
        "cat": "cat",
        "chair": "chair",
        "cow": "cow",
        "diningtable": "dining table",
        "dog": "dog",
        "horse": "horse",
        "motorbike": "motorbike",
        "person": "person",
        "pottedplant": "potted plant",
        "sheep": "sheep",
        "sofa": "sofa",
        "train": "train",
        "tvmonitor": "television or monitor",
    },
    "GTSRB": {
        f"{number:05d}": name
        for number, name in enumerate(
            (
                *(f"speed limit {speed}" for speed in (20, 30, 50, 60, 70, 80)),
                "end of the speed limit 80",
                "speed limit 100",
                "speed limit 120",
                "no overtaking",
                "no overtaking by trucks",
                "right of way at the next crossing",
                "priority road",
                "give way",
                "stop",
                "no vehicles",
                "no trucks",
                "no entry",
                "danger",
                "bend to the left",
                "bend to the right",
                "double bend",
                "uneven road",
                "slippery road",
                "the road narrows on the right",
                "road works",
                "traffic lights",
                "pedestrians",
                "children crossing",
                "bicycles crossing",
                "ice and snow",
                "wild animals",
                "end of all limits",
                "turn right ahead",
                "turn left ahead",
                "straight ahead only",
                "straight ahead or right",
                "straight ahead or left",
                "keep right",
                "keep left",
                "roundabout",
                "end of no overtaking",
                "end of no overtaking by trucks",
            )
        )
    },
}
"""Set → its class, as its folders are called, in the order of its numbers → our name of it in prompts."""
