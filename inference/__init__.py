"""From a trained model to draws one may trust: posteriors, exact samplers, populations."""
