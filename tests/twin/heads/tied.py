"""vqlm's dense head with the embedding table as its matrix."""

import heads.dense


class Head(heads.dense.Head):
    def __init__(self, *context):
        super().__init__(*context, tied=1)
