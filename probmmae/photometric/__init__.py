"""Redshifts from catalogue photometry alone: trained on a table in minutes, recalibrated.

From a table of fluxes and spectroscopic redshifts (`recipe`, `sample`) to an ensemble of networks
(`network`), its law of the PIT out of fold and the region it knows (`footprint`), all kept in one
checkpoint (`training`), and from that to densities of any galaxies (`answers`). The features of a
band and the density are those of the full model; any band may be missing.
"""
