"""The stages of the RLAIF-V loop; `recipes.rlaif_v` runs them in order."""
