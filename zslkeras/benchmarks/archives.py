"""The published archives of the field's six benchmarks: addresses, what a dataset takes from each, and where it goes.

None of them could be fetched when this table was written. Addresses are those of the datasets' own pages and of
programs that read them; sizes and digests are those that others recorded, named beside each. An archive without a
digest is unverified: `download` records the digest at first use and checks later copies against it.
"""

import dataclasses

_MB, _GB = 10**6, 10**9


@dataclasses.dataclass(frozen=True)
class Archive:
    """A published file. The bounds are far above the expected values: what exceeds them is something else."""

    url: str
    most_bytes: int
    most_unpacked: int  # bytes of all members
    most_members: int
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self):
        return self.url.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class Part:
    """What a dataset takes from an archive.

    Attributes:
        archive: the Archive.
        take: pairs of a pattern, which matches a member's whole name, and the place in `<root>/<NAME>` it goes to.
        gives: files or folders among the taken ones whose presence shows that nothing has to be fetched.
        files: the least number of files that are taken.
        pictures: whether they are the images.
    """

    archive: Archive
    take: tuple[tuple[str, str], ...]
    gives: tuple[str, ...]
    files: int = 1
    pictures: bool = False


# Unverified, about 0.9 GB.
XLSA17 = Archive("https://datasets.d2.mpi-inf.mpg.de/xian/xlsa17.zip", 3 * _GB, 10 * _GB, 10_000)
# Unverified.
CVPR18XIAN = Archive("https://datasets.d2.mpi-inf.mpg.de/xian/cvpr18xian.zip", 3 * _GB, 10 * _GB, 10_000)
# Sizes and digests of the three: TensorFlow Datasets, checksums of oxford_flowers102.
FLOWERS = Archive(
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
    400 * _MB,
    1 * _GB,
    20_000,
    size=344_862_509,
    sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
)
FLOWER_LABELS = Archive(
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/imagelabels.mat",
    1 * _MB,
    1 * _MB,
    1,
    size=502,
    sha256="4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
)
FLOWER_SETS = Archive(
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/setid.mat",
    1 * _MB,
    1 * _MB,
    1,
    size=14_989,
    sha256="46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
)
# Size and digest: TensorFlow Datasets, checksums of caltech_birds2011, recorded of the same file at another address.
BIRDS = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    2 * _GB,
    5 * _GB,
    50_000,
    size=1_150_585_339,
    sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
)
# Unverified, 32 KB and about 13 GB; the second has a licence beside each image.
ANIMALS = Archive("https://cvml.ista.ac.at/AwA2/AwA2-base.zip", 1 * _MB, 10 * _MB, 1_000)
ANIMAL_PICTURES = Archive("https://cvml.ista.ac.at/AwA2/AwA2-data.zip", 20 * _GB, 25 * _GB, 200_000)
# Unverified, about 1.8 GB.
SCENES = Archive(
    "https://cs.brown.edu/people/gmpatter/Attributes/SUNAttributeDB_Images.tar.gz", 4 * _GB, 8 * _GB, 50_000
)
# Digest: torchvision's prototype of VOC. Its own page links to plain http, which is said to redirect to this host.
PASCAL = Archive(
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2008/VOCtrainval_14-Jul-2008.tar",
    2 * _GB,
    2 * _GB,
    100_000,
    sha256="7f0ca53c1b5a838fbe946965fc106c6e86832183240af5c88e3f6c306318d42e",
)
# Unverified; its own page links to plain http, and is said to be down at times.
YAHOO = Archive("https://vision.cs.uiuc.edu/attributes/ayahoo_test_images.tar.gz", 2 * _GB, 2 * _GB, 20_000)


def _features(archive, name):
    taken = rf"(?:.*/)?{name}/(res101\.mat|(?:att|sent)_splits\.mat)"
    return Part(archive, ((taken, r"\1"),), gives=("res101.mat", "att_splits.mat"), files=2)


def _pictures(archive, pattern, files, folder="images"):
    return Part(archive, ((pattern, rf"{folder}/\1"),), gives=(folder,), files=files, pictures=True)


def _single(archive):
    return Part(archive, ((archive.name, archive.name),), gives=(archive.name,))


# By the name of the folder. Numbers of images are those of the published splits. AWA1's images are not published.
DATASETS = {
    "CUB": (
        _features(XLSA17, "CUB"),
        Part(
            BIRDS,
            ((r"(?:.*/)?images/([^/]+/[^/]+\.jpg)", r"images/\1"), (r"attributes\.txt", "attributes.txt")),
            gives=("images",),
            files=11_788,
            pictures=True,
        ),
    ),
    "SUN": (
        _features(XLSA17, "SUN"),
        _pictures(SCENES, r"(?:.*?/)?images/(.+\.jpg)", 14_340),
    ),
    "AWA1": (_features(XLSA17, "AWA1"),),
    "AWA2": (
        _features(XLSA17, "AWA2"),
        Part(ANIMALS, ((r"(?:.*/)?predicates\.txt", "predicates.txt"),), gives=("predicates.txt",)),
        _pictures(ANIMAL_PICTURES, r"(?:.*/)?JPEGImages/([^/]+/[^/]+\.jpg)", 37_322),
    ),
    # Two archives fill one folder, so each is recognised by one of its images.
    "APY": (
        _features(XLSA17, "APY"),
        Part(
            PASCAL,
            ((r"(?:.*/)?JPEGImages/([^/]+\.jpg)", r"images/\1"),),
            gives=("images/2008_000008.jpg",),
            pictures=True,
        ),
        Part(YAHOO, ((r"(?:.*/)?([^/]+\.jpg)", r"images/\1"),), gives=("images/bag_5.jpg",), pictures=True),
    ),
    "FLO": (
        _features(CVPR18XIAN, "FLO"),
        _single(FLOWER_LABELS),
        _single(FLOWER_SETS),
        _pictures(FLOWERS, r"(?:.*/)?jpg/(image_\d{5}\.jpg)", 8_189, folder="jpg"),
    ),
}


def folder(root, name):
    """`<root>/<NAME>`, or the folder there whose name differs in case only, such as aPY and AwA2."""
    if not (root / name).is_dir() and root.is_dir():
        return next((path for path in sorted(root.iterdir()) if path.name.upper() == name), root / name)
    return root / name
