"""Low-rank factors of records: where their numbers lie (`line`), how these are stored (`spans`), what they come to
(`product`).

A record's words are one matrix or several; of each, U (rows x rank) and V (rank x columns), and a weight for each
component. Whole numbers have a product that is exact whatever the order it is summed in; floats, which keep another
tool's factors bit for bit, are summed in one order.
"""  # noqa: D205 - one sentence
