"""What is known of genomes: reference, variants, haplotypes, genes. No Ray, no models."""
