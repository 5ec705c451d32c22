/* rdkit_qed.h -- drug-likeness, QED (Bickerton, Paolini, Besnard, Muresan and Hopkins, Quantifying the
 * chemical beauty of drugs, Nature Chemistry 2012), as RDKit's rdkit/Chem/QED.py has it: its
 * patterns, numbers and formulas, and the same results.  That is under this licence:
 *
 *
 * Copyright (c) 2009-2017, Novartis Institutes for BioMedical Research Inc.
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
#ifndef RDKIT_QED_H
#define RDKIT_QED_H

#include <cmath>
#include <cstddef>
#include <memory>
#include <vector>

#include <GraphMol/ChemTransforms/ChemTransforms.h>
#include <GraphMol/Descriptors/Lipinski.h>
#include <GraphMol/Descriptors/MolDescriptors.h>
#include <GraphMol/Descriptors/MolSurf.h>
#include <GraphMol/MolOps.h>

#include "rdkit_match.h"

namespace qed
{
/* An asymmetric double sigmoid, and the weight of its logarithm in the mean. */
struct desirability {
    double a, b, c, d, e, f, most, weight;
};

enum property {
    WEIGHT,
    LOGP,
    ACCEPTORS,
    DONORS,
    SURFACE,
    ROTATABLE,
    AROMATIC,
    ALERTS,
    PROPERTIES
};

const desirability desirabilities[PROPERTIES] = {
    {2.817065973, 392.5754953, 290.7489764, 2.419764353, 49.22325677, 65.37051707, 104.9805561,
     0.66},
    {3.172690585, 137.8624751, 2.534937431, 4.581497897, 0.822739154, 0.576295591, 131.3186604,
     0.46},
    {2.948620388, 160.4605972, 3.615294657, 4.435986202, 0.290141953, 1.300669958, 148.7763046,
     0.05},
    {1.618662227, 1010.051101, 0.985094388, 0.000000001, 0.713820843, 0.920922555, 258.1632616,
     0.61},
    {1.876861559, 125.2232657, 62.90773554, 87.83366614, 12.01999824, 28.51324732, 104.5686167,
     0.06},
    {0.010000000, 272.4121427, 2.558379970, 1.565547684, 1.271567166, 2.758063707, 105.4420403,
     0.65},
    {3.217788970, 957.7374108, 2.274627939, 0.000000001, 1.317690384, 0.375760881, 312.3372610,
     0.48},
    {0.010000000, 1199.094025, -0.09002883, 0.000000001, 0.185904477, 0.875193782, 417.7253140,
     0.95},
};

const char *const aliphatic_ring = "[$([A;R][!a])]";

const char *const acceptors[] = {
    "[oH0;X2]",
    "[OH1;X2;v2]",
    "[OH0;X2;v2]",
    "[OH0;X1;v2]",
    "[O-;X1]",
    "[SH0;X2;v2]",
    "[SH0;X1;v2]",
    "[S-;X1]",
    "[nH0;X2]",
    "[NH0;X1;v3]",
    "[$([N;+0;X3;v3]);!$(N[C,S]=O)]",
};

const char *const alerts[] = {
    "*1[O,S,N]*1",
    "[S,C](=[O,S])[F,Br,Cl,I]",
    "[CX4][Cl,Br,I]",
    "[#6]S(=O)(=O)O[#6]",
    "[$([CH]),$(CC)]#CC(=O)[#6]",
    "[$([CH]),$(CC)]#CC(=O)O[#6]",
    "n[OH]",
    "[$([CH]),$(CC)]#CS(=O)(=O)[#6]",
    "C=C(C=O)C=O",
    "n1c([F,Cl,Br,I])cccc1",
    "[CH1](=O)",
    "[#8][#8]",
    "[C;!R]=[N;!R]",
    "[N!R]=[N!R]",
    "[#6](=O)[#6](=O)",
    "[#16][#16]",
    "[#7][NH2]",
    "C(=O)N[NH2]",
    "[#6]=S",
    "[$([CH2]),$([CH][CX4]),$(C([CX4])[CX4])]=[$([CH2]),$([CH][CX4]),$(C([CX4])[CX4])]",
    "C1(=[O,N])C=CC(=[O,N])C=C1",
    "C1(=[O,N])C(=[O,N])C=CC=C1",
    "a21aa3a(aa1aaaa2)aaaa3",
    "a31a(a2a(aa1)aaaa2)aaaa3",
    "a1aa2a3a(a1)A=AA=A3=AA=A2",
    "c1cc([NH2])ccc1",
    "[Hg,Fe,As,Sb,Zn,Se,se,Te,B,Si,Na,Ca,Ge,Ag,Mg,K,Ba,Sr,Be,Ti,Mo,Mn,Ru,Pd,Ni,Cu,Au,"
    "Cd,Al,Ga,Sn,Rh,Tl,Bi,Nb,Li,Pb,Hf,Ho]",
    "I",
    "OS(=O)(=O)[O-]",
    "[N+](=O)[O-]",
    "C(=O)N[OH]",
    "C1NC(=O)NC(=O)1",
    "[SH]",
    "[S-]",
    "c1ccc([Cl,Br,I,F])c([Cl,Br,I,F])c1[Cl,Br,I,F]",
    "c1cc([Cl,Br,I,F])cc([Cl,Br,I,F])c1[Cl,Br,I,F]",
    "[CR1]1[CR1][CR1][CR1][CR1][CR1][CR1]1",
    "[CR1]1[CR1][CR1]cc[CR1][CR1]1",
    "[CR2]1[CR2][CR2][CR2][CR2][CR2][CR2][CR2]1",
    "[CR2]1[CR2][CR2]cc[CR2][CR2][CR2]1",
    "[CH2R2]1N[CH2R2][CH2R2][CH2R2][CH2R2][CH2R2]1",
    "[CH2R2]1N[CH2R2][CH2R2][CH2R2][CH2R2][CH2R2][CH2R2]1",
    "C#C",
    "[OR2,NR2]@[CR2]@[CR2]@[OR2,NR2]@[CR2]@[CR2]@[OR2,NR2]",
    "[$([N+R]),$([n+R]),$([N+]=C)][O-]",
    "[#6]=N[OH]",
    "[#6]=NOC=O",
    "[#6](=O)[CX4,CR0X3,O][#6](=O)",
    "c1ccc2c(c1)ccc(=O)o2",
    "[O+,o+,S+,s+]",
    "N=C=O",
    "[NX3,NX4][F,Cl,Br,I]",
    "c1ccccc1OC(=O)[#6]",
    "[CR0]=[CR0][CR0]=[CR0]",
    "[C+,c+,C-,c-]",
    "N=[N+]=[N-]",
    "C12C(NC(N1)=O)CSC2",
    "c1c([OH])c([OH,NH2,NH])ccc1",
    "P",
    "[N,O,S]C#N",
    "C=C=O",
    "[Si][F,Cl,Br,I]",
    "[SX2]O",
    "[SiR0,CR0](c1ccccc1)(c2ccccc2)(c3ccccc3)",
    "O1CCCCC1OC2CCC3CCCCC3C2",
    "N=[CR0][N,n,O,S]",
    "[cR2]1[cR2][cR2]([Nv3X3,Nv4X4])[cR2][cR2][cR2]1[cR2]2[cR2][cR2][cR2]([Nv3X3,Nv4X"
    "4])[cR2][cR2]2",
    "C=[C!r]C#N",
    "[cR2]1[cR2]c([N+0X3R0,nX3R0])c([N+0X3R0,nX3R0])[cR2][cR2]1",
    "[cR2]1[cR2]c([N+0X3R0,nX3R0])[cR2]c([N+0X3R0,nX3R0])[cR2]1",
    "[cR2]1[cR2]c([N+0X3R0,nX3R0])[cR2][cR2]c1([N+0X3R0,nX3R0])",
    "[OH]c1ccc([OH,NH2,NH])cc1",
    "c1ccccc1OC(=O)O",
    "[SX2H0][N]",
    "c12ccccc1(SC(S)=N2)",
    "c12ccccc1(SC(=S)N2)",
    "c1nnnn1C=O",
    "s1c(S)nnc1NC=O",
    "S1C=CSC1=S",
    "C(=O)Onnn",
    "OS(=O)(=O)C(F)(F)F",
    "N#CC[OH]",
    "N#CC(=O)",
    "S(=O)(=O)C#N",
    "N[CH2]C#N",
    "C1(=O)NCC1",
    "S(=O)(=O)[O-,OH]",
    "NC[F,Cl,Br,I]",
    "C=[C!r]O",
    "[NX2+0]=[O+0]",
    "[OR0,NR0][OR0,NR0]",
    "C(=O)O[C,H1].C(=O)O[C,H1].C(=O)O[C,H1]",
    "[CX2R0][NX3R0]",
    "c1ccccc1[C;!R]=[C;!R]c2ccccc2",
    "[NX3R0,NX4R0,OR0,SX2R0][CX4][NX3R0,NX4R0,OR0,SX2R0]",
    "[s,S,c,C,n,N,o,O]~[n+,N+](~[s,S,c,C,n,N,o,O])(~[s,S,c,C,n,N,o,O])~[s,S,c,C,n,N,o,O]",
    "[s,S,c,C,n,N,o,O]~[nX3+,NX3+](~[s,S,c,C,n,N])~[s,S,c,C,n,N]",
    "[*]=[N+]=[*]",
    "[SX3](=O)[O-,OH]",
    "N#N",
    "F.F.F.F",
    "[R0;D2][R0;D2][R0;D2][R0;D2]",
    "[cR,CR]~C(=O)NC(=O)~[cR,CR]",
    "C=!@CC=[O,S]",
    "[#6,#8,#16][#6](=O)O[#6]",
    "c[C;R0](=[O,S])[#6]",
    "c[SX2][C;!R]",
    "C=C=C",
    "c1nc([F,Cl,Br,I,S])ncc1",
    "c1ncnc([F,Cl,Br,I,S])c1",
    "c1nc(c2c(n1)nc(n2)[F,Cl,Br,I])",
    "[#6]S(=O)(=O)c1ccc(cc1)F",
    "[15N]",
    "[13C]",
    "[18O]",
    "[34S]",
};

class scorer
{
  public:
    scorer() : aliphatic_(aliphatic_ring, match::pattern::from::first)
    {
        for (const char *smarts : acceptors)
            acceptors_.emplace_back(smarts, match::pattern::from::first);
        for (const char *smarts : alerts)
            alerts_.emplace_back(smarts, match::pattern::from::rarest);
    }

    /* Of a molecule without atoms of hydrogen, as a target too, and its logP. */
    double score(const RDKit::ROMol &molecule, match::target &t, double logp) const
    {
        using namespace RDKit::Descriptors;
        const double x[PROPERTIES] = {
            calcAMW(molecule),
            logp,
            static_cast<double>(count_acceptors(t)),
            static_cast<double>(calcNumHBD(molecule)),
            calcTPSA(molecule),
            static_cast<double>(calcNumRotatableBonds(molecule, Strict)),
            static_cast<double>(count_rings(molecule, t)),
            static_cast<double>(count_alerts(t)),
        };
        double sum = 0, weights = 0;
        for (int i = 0; i < PROPERTIES; i++) {
            sum += desirabilities[i].weight * std::log(rate(x[i], desirabilities[i]));
            weights += desirabilities[i].weight;
        }
        return std::exp(sum / weights);
    }

  private:
    match::pattern aliphatic_;
    std::vector<match::pattern> acceptors_; /* each an atom */
    std::vector<match::pattern> alerts_;

    static double rate(double x, const desirability &p)
    {
        double up = 1 + std::exp(-1 * (x - p.c + p.d / 2) / p.e);
        double down = 1 + std::exp(-1 * (x - p.c - p.d / 2) / p.f);
        return (p.a + p.b / up * (1 - 1 / down)) / p.most;
    }

    int count_acceptors(match::target &t) const
    {
        int count = 0;
        for (const match::pattern &p : acceptors_)
            for (int i = 0; i < t.size(); i++)
                count += p.occurs_at(t, i);
        return count;
    }

    int count_alerts(match::target &t) const
    {
        int count = 0;
        for (const match::pattern &p : alerts_)
            count += p.occurs(t);
        return count;
    }

    /* Rings that RDKit sees when atoms of aliphatic ones are taken out. */
    int count_rings(const RDKit::ROMol &molecule, match::target &t) const
    {
        std::vector<char> out(static_cast<std::size_t>(t.size()));
        for (int i = 0; i < t.size(); i++)
            out[static_cast<std::size_t>(i)] = aliphatic_.occurs_at(t, i);
        int rings = count_apart(molecule, out);
        if (rings >= 0 && rings == count_cycles(t, out)) return rings;
        const std::unique_ptr<RDKit::ROMol> rest(
            RDKit::deleteSubstructs(molecule, aliphatic_.molecule()));
        return RDKit::MolOps::findSSSR(*rest);
    }

    /* Rings without an atom that is out, or -1 where one of them meets two others, or another in
     * more than a bond. Of such the smallest set need not be the only one, and what RDKit sees
     * depends on how it seeks; else, if they are as many as there are independent cycles, it sees
     * them. */
    static int count_apart(const RDKit::ROMol &molecule, const std::vector<char> &out)
    {
        const auto &rings = molecule.getRingInfo()->atomRings();
        std::vector<int> owner(out.size(), -1), partner(rings.size(), -1);
        int count = 0;
        for (std::size_t r = 0; r < rings.size(); r++) {
            bool whole = true;
            int shared = 0, ring = static_cast<int>(r);
            for (int i : rings[r])
                whole = whole && !out[static_cast<std::size_t>(i)];
            if (!whole) continue;
            count++;
            for (int i : rings[r]) {
                int &first = owner[static_cast<std::size_t>(i)];
                if (first < 0) {
                    first = ring;
                    continue;
                }
                int &other = partner[static_cast<std::size_t>(first)];
                if ((other >= 0 && other != ring) || (partner[r] >= 0 && partner[r] != first) ||
                    ++shared > 2)
                    return -1;
                other = ring;
                partner[r] = first;
            }
        }
        return count;
    }

    /* Bonds beyond a tree among the atoms that are not out. */
    static int count_cycles(const match::target &t, const std::vector<char> &out)
    {
        std::vector<char> seen(out);
        std::vector<int> todo;
        int atoms = 0, ends = 0, pieces = 0;
        for (int i = 0; i < t.size(); i++) {
            if (seen[static_cast<std::size_t>(i)]) continue;
            pieces++;
            seen[static_cast<std::size_t>(i)] = 1;
            for (todo.assign(1, i); !todo.empty();) {
                int at = todo.back();
                todo.pop_back();
                atoms++;
                for (const match::target::neighbour *n = t.begin(at); n != t.end(at); n++) {
                    auto next = static_cast<std::size_t>(n->atom);
                    ends += !out[next];
                    if (seen[next]) continue;
                    seen[next] = 1;
                    todo.push_back(n->atom);
                }
            }
        }
        return ends / 2 - atoms + pieces;
    }
};
} /* namespace qed */

#endif /* RDKIT_QED_H */
