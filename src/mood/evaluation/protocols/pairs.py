"""Near-distribution pairs of one-class detection: two classes that look alike, one known and one not."""

TABLE_8 = (
    ("airplane", "automobile"),
    ("airplane", "ship"),
    ("airplane", "truck"),
    ("bird", "horse"),
    ("cat", "deer"),
    ("cat", "dog"),
    ("cat", "frog"),
    ("cat", "horse"),
    ("deer", "horse"),
    ("dog", "deer"),
    ("dog", "horse"),
    ("truck", "automobile"),
)
"""The pairs (ID, OOD) of CIFAR-10 in Table 8 of the paper: AUROC below 90 % under CSI; its "trunk" is a truck."""
