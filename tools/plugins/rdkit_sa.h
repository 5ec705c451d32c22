/* rdkit_sa.h -- synthetic accessibility (Ertl and Schuffenhauer, Estimation of synthetic accessibility
 * score of drug-like molecules, Journal of Cheminformatics 2009), as the sascorer.py that RDKit
 * ships has it: its formulas, and the same results.  That is under this licence:
 *
 * Copyright (c) 2013, Novartis Institutes for BioMedical Research Inc.
 * All rights reserved.
 *
 * Redistribution and use in source and binary forms, with or without
 * modification, are permitted provided that the following conditions are
 * met:
 *
 * * Redistributions of source code must retain the above copyright
 * notice, this list of conditions and the following disclaimer.
 * * Redistributions in binary form must reproduce the above
 * copyright notice, this list of conditions and the following
 * disclaimer in the documentation and/or other materials provided
 * with the distribution.
 * * Neither the name of Novartis Institutes for BioMedical Research Inc.
 * nor the names of its contributors may be used to endorse or promote
 * products derived from this software without specific prior written permission.
 *
 * THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS
 * "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT
 * LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR
 * A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT
 * OWNER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
 * SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT
 * LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE,
 * DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY
 * THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT
 * (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
 * OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
 */
#ifndef RDKIT_SA_H
#define RDKIT_SA_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include <GraphMol/Descriptors/Lipinski.h>
#include <GraphMol/Fingerprints/MorganFingerprints.h>
#include <GraphMol/MolOps.h>
#include <GraphMol/RDKitBase.h>
#include <RDGeneral/types.h>

/* What rdkit_fragments.py has made of the scorer's own file, KAC_FRAGMENTS: so many numbers of
 * fragments, rising, uint32, and then the score of each, double. */
__asm__(".pushsection .rodata\n"
        ".balign 8\n"
        "kac_fragments:\n"
        ".incbin \"" KAC_FRAGMENTS "\"\n"
        "kac_fragments_end:\n"
        ".popsection\n");
extern "C" {
__attribute__((visibility("hidden"))) extern const unsigned char kac_fragments[],
    kac_fragments_end[];
}

namespace sa
{
/* How usual each fragment is. */
class fragments
{
  public:
    fragments()
        : count_(static_cast<std::size_t>(kac_fragments_end - kac_fragments) /
                 (NUMBER + SCORE)),
          first_((1U << 16) + 1)
    {
        for (std::size_t k = count_; k-- > 0;)
            first_[number(k) >> 16] = k;
        first_[1U << 16] = count_;
        for (std::size_t high = 1U << 16; high-- > 0;)
            if (first_[high] == 0 && (high != number(0) >> 16)) first_[high] = first_[high + 1];
    }

    double score(std::uint32_t fragment) const
    {
        for (std::size_t k = first_[fragment >> 16]; k < first_[(fragment >> 16) + 1]; k++)
            if (number(k) == fragment) return score_of(k);
        return -4;
    }

  private:
    enum : std::size_t { NUMBER = sizeof(std::uint32_t), SCORE = sizeof(double) };

    std::size_t count_;
    std::vector<std::size_t> first_; /* by the upper half of a number, where those begin */

    static std::uint32_t number(std::size_t k)
    {
        std::uint32_t number = 0;
        std::memcpy(&number, kac_fragments + k * NUMBER, NUMBER);
        return number;
    }
    double score_of(std::size_t k) const
    {
        double score = 0;
        std::memcpy(&score, kac_fragments + count_ * NUMBER + k * SCORE, SCORE);
        return score;
    }
};

/* Stereocentres, those without a sense too.  Leaves its marks on the molecule. */
inline int count_stereocentres(RDKit::ROMol &molecule)
{
    int count = 0;
    RDKit::MolOps::assignStereochemistry(molecule, false, true, true);
    for (const RDKit::Atom *atom : molecule.atoms())
        count += atom->hasProp(RDKit::common_properties::_CIPCode) ||
                 atom->hasProp(RDKit::common_properties::_ChiralityPossible);
    return count;
}

/* 1, easy, to 10. */
inline double score(RDKit::ROMol &molecule, const fragments &known)
{
    using namespace RDKit::Descriptors;
    const std::unique_ptr<RDKit::SparseIntVect<std::uint32_t>> print(
        RDKit::MorganFingerprints::getFingerprint(molecule, 2));
    double usual = 0;
    int found = 0;
    for (const auto &[fragment, times] : print->getNonzeroElements()) {
        found += times;
        usual += known.score(fragment) * times;
    }
    usual /= found;

    const auto distinct = static_cast<double>(print->getNonzeroElements().size());
    const auto atoms = static_cast<double>(molecule.getNumAtoms());
    const int centres = count_stereocentres(molecule);
    bool macrocycle = false;
    for (const auto &ring : molecule.getRingInfo()->atomRings())
        macrocycle = macrocycle || ring.size() > 8;
    double penalty = 0. - (std::pow(atoms, 1.005) - atoms) - std::log10(centres + 1) -
                     std::log10(calcNumSpiroAtoms(molecule) + 1) -
                     std::log10(calcNumBridgeheadAtoms(molecule) + 1) -
                     (macrocycle ? std::log10(2) : 0.);
    double symmetry = atoms > distinct ? std::log(atoms / distinct) * .5 : 0.;

    const double least = -4.0, most = 2.5;
    double score = usual + penalty + symmetry;
    score = 11. - (score - least + 1) / (most - least) * 9.;
    if (score > 8.) score = 8. + std::log(score + 1. - 9.);
    return std::clamp(score, 1., 10.);
}
} /* namespace sa */

#endif /* RDKIT_SA_H */
